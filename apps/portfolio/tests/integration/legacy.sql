-- What runs in production before the first migration: the definitions in LEGACY.md, word for word.
CREATE TABLE task_status (
    id SERIAL PRIMARY KEY,
    task_type VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    resource_id INTEGER NOT NULL,
    error VARCHAR,
    task_metadata JSONB,                     -- varies: plain JSON in some deployments
    created_at TIMESTAMP DEFAULT NOW(),      -- varies: no server default, filled by a UTC clock in Python; NULL happens
    updated_at TIMESTAMP DEFAULT NOW()
);
CREATE TABLE etfs (id VARCHAR PRIMARY KEY, symbol VARCHAR, name VARCHAR, currency VARCHAR, isin VARCHAR);
CREATE TABLE etf_updates (
    id SERIAL PRIMARY KEY,
    etf_id VARCHAR NOT NULL REFERENCES etfs(id),      -- varies: ON DELETE CASCADE
    update_type VARCHAR NOT NULL,                     -- full, prices_only, info_only, manual
    start_date DATE NOT NULL,
    end_date DATE NOT NULL,
    status VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL,
    completed_at TIMESTAMP,
    error VARCHAR,
    missing_dates DATE[],
    retry_count INTEGER NOT NULL DEFAULT 0,
    notes VARCHAR
);                                                    -- varies: indexes (status, completed_at), (etf_id, start_date, end_date)
CREATE TABLE daily_update_tracking (
    date DATE NOT NULL,
    update_type VARCHAR(50) NOT NULL,                 -- exchange_rates, etf_prices, etf_prices_<etf id>
    attempted BOOLEAN DEFAULT FALSE,                  -- nullable
    data_found BOOLEAN DEFAULT FALSE,                 -- nullable
    notes TEXT,                                       -- e.g. a weekend, no data expected
    PRIMARY KEY (date, update_type)
);
