"""The query plane: what was recorded, as JSON over HTTP. Writes go through the recorder."""
