"""Files read and written safely: regular ones only, flushed, replaced whole."""
