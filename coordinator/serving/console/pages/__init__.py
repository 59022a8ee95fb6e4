"""The pages: each handler asks the office and fills a template."""
