"""The model layer: RWKV, its WKV operator, and a thin door to the other families."""
