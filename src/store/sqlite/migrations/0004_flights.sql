-- What a request has in common with others of its kind, and its limit of output tokens: for test flights and budgets.
ALTER TABLE requests ADD COLUMN template BLOB;
ALTER TABLE requests ADD COLUMN most_output INTEGER;

-- The last test flight of each template (flights.rs). Pilots are the ids of requests, sixteen bytes each.
CREATE TABLE flights (
    template   BLOB    PRIMARY KEY,
    id         BLOB    NOT NULL,
    state      INTEGER NOT NULL,
    provider   TEXT    NOT NULL,
    account    BLOB    NOT NULL,
    endpoint   TEXT    NOT NULL,
    model      TEXT    NOT NULL,
    tag        TEXT,
    created_at INTEGER NOT NULL,
    landed_at  INTEGER,
    decided_at INTEGER,
    pilots     BLOB    NOT NULL,
    reasons    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
