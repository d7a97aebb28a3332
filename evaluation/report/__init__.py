"""What an evaluation writes: tables, summary, pages and figures."""
