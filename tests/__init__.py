"""The tests of twisted-smtpd: the folders are those of the package."""

from hypothesis import HealthCheck, settings

# A busy machine must not make a test fail: nothing here is judged by the wall clock.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
