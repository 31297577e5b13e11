"""What a stranger meets first: files, metadata, documents and make, held to what they claim."""
