"""Steps that all kinds of preparation share: joint files, detection, lifting, masks."""
