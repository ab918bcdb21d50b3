"""What every part of the JSON API shares: who calls, how it reads, filters, pages, answers, and how it refuses."""
