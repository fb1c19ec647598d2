"""What `smolrgpt check-data` looks at: sources found in a folder, their questions, pictures, depth and masks, and duplicates."""
