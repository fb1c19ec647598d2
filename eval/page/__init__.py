"""The web page on which people mark regions in a picture and ask a model about them."""
