SUMMARY = "The host's pseudo and shadow, which check.py puts in their places"
require stand-in.inc
inherit native

PROVIDES += "virtual/fakeroot-native shadow-native"

do_install[noexec] = "1"
