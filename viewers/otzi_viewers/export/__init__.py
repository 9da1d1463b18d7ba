"""`otzi view --export`: a collection for browsers, served by any web server, without Python."""
