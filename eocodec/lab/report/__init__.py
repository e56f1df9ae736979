"""Reports of the lab: every measure of every subject, as JSON, pages and tables, from one TOML file."""
