-- Row keys are the sequence numbers inside the ids: inserts always append, and no second index on the id is needed.
-- Times are microseconds since the epoch, UTC; states are numbers (rows.rs). Bodies are sealed envelopes (seal.rs).

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lanes (
    lane           INTEGER PRIMARY KEY,
    provider       TEXT    NOT NULL,
    account        BLOB    NOT NULL,
    endpoint       TEXT    NOT NULL,
    model          TEXT    NOT NULL,
    deadline_class INTEGER NOT NULL,
    UNIQUE (provider, account, endpoint, model, deadline_class)
) STRICT;

CREATE TABLE requests (
    seq          INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL,
    state        INTEGER NOT NULL,
    options      INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    caller       BLOB    NOT NULL,
    body_hash    BLOB    NOT NULL,
    idempotency  BLOB,
    body_len     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    deadline_at  INTEGER,
    tag          TEXT,
    attempts     INTEGER NOT NULL DEFAULT 0,
    batch        BLOB,
    submitted_at INTEGER,
    finished_at  INTEGER,
    result       INTEGER
) STRICT;

-- Only ended requests are in it, so accepting does not pay for it.
CREATE INDEX requests_finished ON requests (finished_at) WHERE finished_at IS NOT NULL;

-- Only calls that sent an Idempotency-Key are in it.
CREATE INDEX requests_idempotency ON requests (idempotency) WHERE idempotency IS NOT NULL;

CREATE TABLE bodies (
    seq  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- In order of arrival, which is not the order of the requests: a harvest appends, whatever order the provider chose.
CREATE TABLE results (
    num                 INTEGER PRIMARY KEY,
    status_code         INTEGER NOT NULL,
    service             TEXT,
    provider_request_id TEXT,
    error_code          TEXT,
    error_message       TEXT,
    usage               TEXT,
    cost_nanos          INTEGER,
    saved_nanos         INTEGER,
    body                BLOB
) STRICT;

CREATE TABLE batches (
    seq            INTEGER PRIMARY KEY,
    id             BLOB    NOT NULL,
    lane           INTEGER NOT NULL,
    state          INTEGER NOT NULL,
    line_count     INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    submitted_at   INTEGER,
    ended_at       INTEGER,
    input_file_id  TEXT,
    batch_id       TEXT,
    status         TEXT,
    completed      INTEGER,
    failed         INTEGER,
    output_file_id TEXT,
    error_file_id  TEXT,
    error          TEXT
) STRICT;

CREATE INDEX batches_created ON batches (created_at);
CREATE INDEX batches_open ON batches (seq) WHERE ended_at IS NULL;

-- The ids of a batch's lines, 16 bytes each, in file order.
CREATE TABLE batch_lines (
    seq   INTEGER PRIMARY KEY,
    lines BLOB NOT NULL
) STRICT;

CREATE TABLE accounts (
    fingerprint BLOB NOT NULL,
    provider    TEXT NOT NULL,
    headers     BLOB NOT NULL,
    PRIMARY KEY (fingerprint, provider)
) STRICT, WITHOUT ROWID;
