-- What refusals taught of the provider's limits (engine/quota.rs). `model` is empty and `kind` 1 where the bytes of a file
-- are meant, which all models of the credential share; otherwise prompt tokens in the model's queue.
CREATE TABLE ceilings (
    provider TEXT    NOT NULL,
    account  BLOB    NOT NULL,
    kind     INTEGER NOT NULL,
    model    TEXT    NOT NULL,
    most     INTEGER NOT NULL,
    told     INTEGER,
    at       INTEGER NOT NULL,
    PRIMARY KEY (provider, account, kind, model)
) STRICT, WITHOUT ROWID;
