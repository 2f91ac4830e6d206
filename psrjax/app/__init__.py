"""The page `psrjax app`: transfers, trainings and preparation in a browser, on this machine."""

import os

# Gradio reads these when it is imported: nothing is told to, and nothing asked of, the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
