"""The two strongest mask slots of every pixel of bilinearly enlarged mask logits, without enlarging them all.

TODO
"""
