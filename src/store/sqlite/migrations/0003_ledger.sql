-- What was executed and billed. A row's key is its request's sequence number and its place (store/ledger.rs): a batch's
-- sequence number, a live attempt as a negative number, 0 for a call that passed through. Rows are appended nearly in
-- order of their keys, so no other index is needed. Money is in nano-dollars; NULL: the price is unknown.

ALTER TABLE requests ADD COLUMN client_key TEXT;

-- By what rows are added up: few, and named by a number, like lanes. An empty text stands for none.
CREATE TABLE ledger_groups (
    grp        INTEGER PRIMARY KEY,
    provider   TEXT NOT NULL,
    account    BLOB NOT NULL,
    model      TEXT NOT NULL,
    service    TEXT NOT NULL,
    tag        TEXT NOT NULL,
    client_key TEXT NOT NULL,
    agent      TEXT NOT NULL,
    UNIQUE (provider, account, model, service, tag, client_key, agent)
) STRICT;

CREATE TABLE ledger (
    request       INTEGER NOT NULL,
    place         INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    grp           INTEGER NOT NULL,
    input         INTEGER,
    cached        INTEGER,
    cache_written INTEGER,
    output        INTEGER,
    reasoning     INTEGER,
    paid          INTEGER,
    live          INTEGER,
    wasted        INTEGER NOT NULL,
    observed      INTEGER NOT NULL,
    batch         INTEGER,
    PRIMARY KEY (request, place)
) STRICT, WITHOUT ROWID;

-- The rows' sums, by hour since the epoch (UTC) and group. They stay when the rows are dropped.
CREATE TABLE ledger_hours (
    hour                 INTEGER NOT NULL,
    grp                  INTEGER NOT NULL,
    requests             INTEGER NOT NULL,
    wasted_requests      INTEGER NOT NULL,
    unpriced             INTEGER NOT NULL,
    unmetered            INTEGER NOT NULL,
    input                INTEGER NOT NULL,
    cached               INTEGER NOT NULL,
    cache_written        INTEGER NOT NULL,
    output               INTEGER NOT NULL,
    reasoning            INTEGER NOT NULL,
    paid                 INTEGER NOT NULL,
    live                 INTEGER NOT NULL,
    wasted               INTEGER NOT NULL,
    observed             INTEGER NOT NULL,
    observed_unpriced    INTEGER NOT NULL,
    observed_live        INTEGER NOT NULL,
    observed_batch       INTEGER NOT NULL,
    observed_not_cheaper INTEGER NOT NULL,
    PRIMARY KEY (hour, grp)
) STRICT, WITHOUT ROWID;
