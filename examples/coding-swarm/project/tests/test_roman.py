import unittest

from toolbox.roman import roman


class Roman(unittest.TestCase):
    def test_sums(self):
        self.assertEqual(roman(2016), "MMXVI")

    def test_differences(self):
        self.assertEqual([roman(4), roman(9), roman(1994)], ["IV", "IX", "MCMXCIV"])
