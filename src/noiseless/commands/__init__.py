"""One function for each command: parses its arguments, calls the library, prints the result."""
