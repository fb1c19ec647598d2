"""A procedural RGB-D warehouse: scenes, pictures, masks, questions and captions with exact answers."""
