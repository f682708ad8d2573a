"""How a character is drawn: shapes, parts of a person, and the painter that turns them into pixels."""
