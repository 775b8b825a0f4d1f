"""From the rows of a run to tables, figures and a page."""
