"""Sharing encoders: the forms that other libraries load, pushing to the Hub, and the model card."""
