"""Results: their files, their certificates, and the choreography of writing both."""
