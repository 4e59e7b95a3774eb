"""What Snakemake needs before a job starts; imports no torch."""
