"""`slg-wds verify`: every byte and label of a set checked, the teacher asked again, damage repaired."""
