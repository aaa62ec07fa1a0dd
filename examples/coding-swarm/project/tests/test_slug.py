import unittest

from toolbox.slug import slug


class Slug(unittest.TestCase):
    def test_words(self):
        self.assertEqual(slug("one two"), "one-two")

    def test_punctuation(self):
        self.assertEqual(slug("Hello,  World!"), "hello-world")
