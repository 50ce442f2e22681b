"""Everything SQL: records, the database, the writer's statements, the reads. Knows no HTTP."""
