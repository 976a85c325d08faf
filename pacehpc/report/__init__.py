"""What a fit shows: tables of errors, lines of the log, figures."""
