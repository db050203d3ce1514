"""The student of the paper, top to bottom: targets, embedding, fusion, decoder, losses."""
