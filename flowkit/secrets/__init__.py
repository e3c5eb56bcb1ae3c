"""The secret manager: keeps secrets sealed, and gives the values of one attempt to whoever may have them."""
