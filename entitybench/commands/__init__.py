"""The verbs of the command line, one small module each; the only code that knows every folder."""
