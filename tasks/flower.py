import os
from tasks.app import make_app
from trellis.settings import BrokerSettings, load
app = make_app(load(BrokerSettings, os.environ).broker_url)
