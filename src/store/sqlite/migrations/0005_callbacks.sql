-- Who is to be told of a request's end. The URL is sealed: it may hold a secret. `since` and `due_at` are set in the
-- transaction that ends the request; attempts are lines of JSON, the oldest first (a few dozen at most).

CREATE TABLE callbacks (
    request    INTEGER NOT NULL,
    id         BLOB NOT NULL,
    request_id BLOB NOT NULL,
    url        BLOB NOT NULL,
    state      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    since      INTEGER,
    due_at     INTEGER,
    attempts   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (request, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX callbacks_id ON callbacks (id);
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX callbacks_created ON callbacks (created_at);
