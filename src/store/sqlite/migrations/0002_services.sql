-- The live call that answers a request (services.rs): its service, since when, and when it was sent.
ALTER TABLE requests ADD COLUMN live INTEGER;
ALTER TABLE requests ADD COLUMN live_since INTEGER;
ALTER TABLE requests ADD COLUMN live_sent INTEGER;

-- How long the last batches took: milliseconds, four bytes each, little endian, oldest first.
CREATE TABLE durations (
    provider   TEXT    NOT NULL,
    account    BLOB    NOT NULL,
    model      TEXT    NOT NULL,
    size_class INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    recent     BLOB    NOT NULL,
    PRIMARY KEY (provider, account, model, size_class)
) STRICT, WITHOUT ROWID;
