"""From statistics to tables: CSV, Markdown, LaTeX."""
