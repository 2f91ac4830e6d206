"""The HTML report, the papers' tables, `reproduce` and the demo."""
