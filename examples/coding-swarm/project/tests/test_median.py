import unittest

from toolbox.median import median


class Median(unittest.TestCase):
    def test_order(self):
        self.assertEqual(median([3, 1, 2]), 2)

    def test_even(self):
        self.assertEqual(median([4, 1, 3, 2]), 2.5)
