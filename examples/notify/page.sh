#!/bin/sh
# A command for [[notify]]: the message is one line of JSON on stdin, and what it is about stands in the environment.
# This one hands it to the system's log; exit code 0 means that it was taken, anything else that it is to come again.
set -eu
logger -t hivekeeper "$HIVEKEEPER_EVENT_TYPE $HIVEKEEPER_EVENT_SUBJECT: $(cat)"
