"""Values to bytes and back, as FORMAT.md beside this file says. No storage, torch or PIL here."""
