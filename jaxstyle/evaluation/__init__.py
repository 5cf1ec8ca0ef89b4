"""Judging pictures: protocols, tables, reports, and a survey for people."""
