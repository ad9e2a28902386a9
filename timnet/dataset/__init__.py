"""From recordings to arrays: manifest, contract, MFCC features, folds."""
