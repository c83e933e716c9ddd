"""What people look at: claims, tables, figures, seeds, the page."""
