"""From scores to what people read: tables, figures, the report."""
