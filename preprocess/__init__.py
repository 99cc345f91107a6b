import signal
import sys

if sys.argv[:1] == ["-m"]:  # what stands there while Python looks for a stage: Ctrl-C waits for preprocess.interrupt
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
