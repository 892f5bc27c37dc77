"""What this kernel and these privileges can do."""
