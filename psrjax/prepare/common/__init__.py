"""Joint files, detection, lifting and masks, which all kinds of preparation share."""
