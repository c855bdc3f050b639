"""Every field of a run, with its default and what it means.

The other configs start from this one and override what differs; so does the
command line: `--config.model.hidden_size=256`. A field that may be left empty
is a typed placeholder: `none` empties it again.

Letters: B batch rows, T window length in symbols, V vocabulary size.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def _empty(fields):
  """The same fields and groups, an empty text each."""
  return ml_collections.ConfigDict(
    {
      name: _empty(value)
      if isinstance(value, ml_collections.ConfigDict)
      else placeholder(str)
      for name, value in fields.items()
    }
  )


def get_config() -> ml_collections.ConfigDict:
  """The defaults: a unidirectional language model of the standard library."""
  config = ml_collections.ConfigDict()
  config.task = "language_model"  # A module of experiments/.
  config.seed = 0  # Initial values, order of windows, dropout.

  config.data = data = ml_collections.ConfigDict()
  # stdlib: the sources of the Python standard library, a module a document.
  # opcodes: the opcodes of its functions, a function a document.
  # packages: the modules of its packages, labelled by package.
  # topics: the topics of Python's help, a document each.
  # names: surnames, labelled by language (needs the extra `names`).
  # files: your own, from data.path or from the three paths below it.
  # tinyshakespeare: fetched once, checked by its SHA-256.
  # chords: four-part music made by rules; for task polyphony, as are files that
  # end in .mat or .json and bring their own splits.
  data.source = "stdlib"
  data.path = placeholder(str)  # A file, a glob or a folder, split by us.
  data.train_path = placeholder(str)  # Or already split: one path each.
  data.validation_path = placeholder(str)
  data.test_path = placeholder(str)
  # How files give labels, for task=classification (a text and its label):
  # tab (a line: label, tab, text; columns between the two are skipped), space
  # (a line: label, space, text), csv and jsonl (the two fields below), folders
  # (one a label, a text a file), files (one a label, a text a line).
  # For task=tagging (a symbol and its tag): columns (a line: word, tag; a blank
  # one after each sentence), conllu (word and UPOS), spaces (texts of any
  # source without their white space: does some follow the character?).
  # text: they give none.
  data.format = "text"
  data.label_field = "label"
  data.text_field = "text"
  # char, byte, word (separated by white space, a newline is a word), id (one
  # a line, a file a sequence), session (a sequence a line, ids separated by
  # spaces; with data.format=csv a table with the columns session and event, and
  # perhaps timestamp, line and data.label_field), log (the template of a line
  # of raw logs; needs the extra `logs`).
  data.unit = "char"
  # Logs. What a line is, as "<Date> <Time> <Level> <Component>: <Content>":
  # Year, Month, Day, Date, Time and Timestamp are its time, Label is its label
  # (detect.normal_labels says which ones are normal, as -). A line that does
  # not fit is content; None: each is.
  data.log_header = placeholder(str)
  # And how it is cut into sessions, by one of these; None: a file is one. The
  # session of a line is what the one group of an expression finds in it, as
  # (blk_-?\d+); a line with several is of each, one with none of none.
  data.log_session = placeholder(str)
  data.log_gap = placeholder(float)  # Seconds of silence between two.
  data.log_lines = placeholder(int)  # So many lines each.
  # strict: bytes that are not UTF-8 are refused with their place; replace: each
  # becomes U+FFFD; latin-1: all is read as Latin-1, where every byte is right.
  data.errors = "strict"
  # documents: whole documents are held out, chosen by a hash of their names.
  # last_documents: the last ones in order (time order of logs).
  # tails: the end of every document.
  # stream_tails: char-rnn's, the end of each of B equal parts of one text.
  # auto: documents where there are at least 10, else tails.
  data.split = "auto"
  data.validation_fraction = 0.05  # Of all symbols.
  data.test_fraction = 0.05
  # "2/5": the second of five parts of the training split is the test split, and
  # no part of training. So --mode=detect learns how high normal sessions score.
  data.fold = placeholder(str)
  data.boundaries = True  # Add begin and end symbols to each document.
  data.min_count = 1  # Rarer symbols of the training split are unknown.
  data.vocabulary_size = placeholder(int)  # Keep the most frequent; all.
  # many_to_many: each symbol of a window predicts the next one.
  # many_to_one: the window predicts the symbol after it.
  data.mapping = "many_to_many"
  data.window = 64  # T: how many symbols back the gradient reaches.
  data.step = placeholder(int)  # From a window to the next; the window.
  # Training: where the first window of a document starts. What is before it is
  # not trained on; how much that is, documents that end before it among it, is
  # printed when training starts.
  data.offset = 0
  # Draw the offset of each document anew each epoch. What is before it is the
  # first window, which is shorter: each symbol is trained on as often as
  # without an offset, and each epoch has as many steps. Windows that must be
  # whole (many_to_one, classification) end with the document instead. A
  # document that fits into a window is never cut.
  data.random_offset = False
  # How many lengths batches may have, each of windows of similar length: for
  # documents of fewer symbols than the window. None: all have the window's.
  data.buckets = placeholder(int)
  # each: every document by itself. weight: equal ones once, with their number
  # as weight. Figures are the same. A step takes the mean over the weight of
  # its batch, so that of several batches one of rare documents counts for more.
  data.repeats = "each"
  # Classification of longer texts: all windows of them (whole ones), the first
  # or the last.
  data.keep = "all"
  # Cut the split into B parallel streams and hand the carry from batch to
  # batch (truncated backpropagation through time).
  data.stateful = False

  config.model = model = ml_collections.ConfigDict()
  # lstm, gru, rnn_tanh, rnn_relu. Of "LSTM: A Search Space Odyssey": odyssey
  # (with peepholes) and its variants odyssey_nig, odyssey_nfg, odyssey_nog (no
  # input, forget, output gate), odyssey_niaf, odyssey_noaf (no input, output
  # activation), odyssey_cifg (coupled gates), odyssey_np (no peepholes),
  # odyssey_fgr (full gate recurrence). layer_norm_lstm, slstm (of xLSTM),
  # gru_reset_before (the product after the reset), mgu (minimal gated unit),
  # min_lstm, min_gru.
  model.cell = "lstm"
  model.hidden_size = 128  # Units of a layer, of each direction.
  # Instead of hidden_size: a run takes the largest one whose model has no more
  # parameters than this, and config.json has both. Beside it, the hidden_size
  # of a config counts for nothing; as flags, give one of the two.
  model.parameters = placeholder(int)
  model.layers = 2
  # Legitimate for many_to_one, classification and tagging.
  model.bidirectional = False
  model.merge = "concat"  # Of the two directions: concat, sum, mean.
  # Gap model. joint: a symbol from both sides; all: it is trained to say a
  # symbol from the past alone and from the future alone, too, and the end is a
  # symbol to say: so it samples, and detects as events come.
  model.heads = "joint"
  model.embedding_size = placeholder(int)  # None: ids straight to the gates.
  # Where a sequence has one output: last (the final state of each direction),
  # mean or max (of the outputs at all symbols).
  model.pooling = "last"
  # Tagging: units, in each direction, of an LSTM over the characters of a word,
  # beside the word's embedding.
  model.letters = placeholder(int)
  model.tied = False  # The softmax uses the embedding's weights.
  model.forget_bias = 1.0  # Initial bias of a forget gate.
  model.initial_scale = placeholder(float)  # U(-a, a); 1/sqrt(fan in).
  # fused: models/scan.py, with a backward pass of its own; plain: nn.scan.
  # The same values and gradients.
  model.scan = "fused"
  # bfloat16: the factors of matrix products are rounded to it; states, sums and
  # parameters stay in float32. Faster where the processor has such products.
  model.products = "float32"
  # Regularisers of training; evaluation knows them as their means.
  model.dropout = 0.0  # After the embedding and after each layer.
  # At the same places, the same units at all steps of a sequence, or of a
  # window of a stream (Gal & Ghahramani 2016).
  model.variational_dropout = 0.0
  # Likewise, of the state that the recurrent product reads.
  model.recurrent_dropout = 0.0
  # Share of symbols whose embedding is zero for a batch (Merity et al. 2017).
  model.embedding_dropout = 0.0
  # Share of the recurrent kernels' entries that are zero for a batch
  # (DropConnect: Wan et al. 2013, Merity et al. 2017).
  model.weight_drop = 0.0
  # Share of the units of h, and of what else a cell carries (the LSTM's c),
  # that a step leaves as they were (Krueger et al. 2017).
  model.zoneout_hidden = 0.0
  model.zoneout_cell = 0.0
  # Times the mean square of the last layer's outputs after dropout, and of
  # their change from step to step before it: added to the training loss, not
  # to the reported one (AR and TAR: Merity et al. 2017).
  model.activation_penalty = 0.0
  model.change_penalty = 0.0
  # Share of input symbols replaced by the unknown symbol in training. Above
  # zero, the model learns what an unknown symbol, or a gap, means.
  model.symbol_dropout = 0.0
  model.input_noise = 0.0  # Polyphony: standard deviation, in training.

  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.name = "adam"  # rmsprop, sgd, adagrad, adam, adamw.
  optimizer.learning_rate = 2e-3
  optimizer.decay = 0.9  # RMSprop: of the mean squared gradient.
  optimizer.momentum = 0.0  # SGD and RMSprop.
  optimizer.nesterov = False  # SGD.
  # SGD: gradients times 1 - momentum, which leaves steps as large as without.
  optimizer.dampened = False
  optimizer.beta1 = 0.9  # Adam, AdamW.
  optimizer.beta2 = 0.999
  optimizer.epsilon = 1e-8
  # AdamW: times the learning rate, taken from the parameters beside the update
  # (Loshchilov & Hutter 2019). The others: times the parameters, added to their
  # gradient once it is clipped, which is the L2 penalty.
  optimizer.weight_decay = 0.0
  optimizer.clip_norm = placeholder(float)  # Of all gradients together.
  optimizer.clip_value = placeholder(float)  # Of each gradient entry.

  config.schedule = schedule = ml_collections.ConfigDict()
  # constant; exponential: times `factor` after each epoch from `after` on;
  # step: times `factor` every `every` epochs; cosine: to `final` times the
  # learning rate after the last step; plateau: times `factor` after `patience`
  # evaluations without a better validation loss.
  schedule.name = "constant"
  schedule.warmup_steps = 0  # Linear from 0, before any of them.
  schedule.factor = 0.5
  schedule.after = 10  # Epochs.
  schedule.every = 5  # Epochs.
  schedule.final = 0.0
  schedule.patience = 2  # Evaluations.

  config.train = train = ml_collections.ConfigDict()
  train.batch_size = 64  # B, over all devices together.
  # Devices that a process makes of its CPU; by a rule, when the run begins: 2
  # where layers are small, else 1. JAX_NUM_CPU_DEVICES prevails.
  train.cpu_devices = placeholder(int)
  train.epochs = 10
  train.max_steps = placeholder(int)  # Stop there, whatever the epochs.
  train.batches_per_epoch = placeholder(int)  # One of the two, or neither:
  train.samples_per_epoch = placeholder(int)  # then all windows.
  # Classification. balanced: all labels weigh the same in training, however
  # frequent they are.
  train.class_weights = "none"
  train.eval_every = placeholder(int)  # Steps; every epoch.
  train.patience = placeholder(int)  # Evaluations without gain, then stop.
  # Share of each target that training spreads over all symbols, or labels
  # (Szegedy et al. 2016); the reported loss is that of the true one.
  train.label_smoothing = 0.0
  # A mean of the parameters is evaluated and kept for all modes, while training
  # goes on with the newest ones. ema: all so far, those of n steps ago weighing
  # ema^n; asgd: equally, from the first evaluation on that is the asgd-th
  # without a better validation loss (NT-ASGD: Merity et al. 2017).
  train.ema = placeholder(float)
  train.asgd = placeholder(int)
  # A loss, gradient or parameter that is not finite. stop: the run ends with
  # its last good checkpoint; rollback: it goes back there, and on with
  # `rollback_factor` times the learning rate, at most `rollbacks` times.
  train.on_nonfinite = "stop"
  train.rollback_factor = 0.5
  train.rollbacks = 3
  # Symbols of the sample that a terminal shows after each evaluation, drawn as
  # `sample` below says; 0: none.
  train.sample_length = 60
  # Write figures, samples and histograms of the parameters for TensorBoard, at
  # each evaluation (needs the extra `tensorboard`).
  train.tensorboard = False

  space = _empty(config)  # What is searched: any field above.

  config.checkpoint = checkpoint = ml_collections.ConfigDict()
  checkpoint.keep = 2  # The latest ones, beside the best.
  checkpoint.every = placeholder(int)  # Steps; at evaluations only.
  checkpoint.step = placeholder(int)  # Which one to read; the best.

  config.evaluate = evaluate = ml_collections.ConfigDict()
  evaluate.split = "test"  # train, validation or test.

  config.describe = describe = ml_collections.ConfigDict()
  describe.measure = True  # Time three steps; else estimate only.

  config.predict = predict = ml_collections.ConfigDict()
  predict.split = "validation"  # Or one of the next two.
  predict.text = placeholder(str)  # A text typed on the command line.
  # A file, a glob or a folder, in the form of data.format and data.unit as in
  # training. Labels or tags may be missing: a line without a tab (tab), a first
  # word that is no label of the run (space), no such field (csv, jsonl), a name
  # that is none (folders, files), one column (columns), _ (conllu). With
  # data.format=text: a text a line, or a sentence a line of words. With
  # data.source=packages a text is a whole file. predict.text likewise: where
  # the texts of data.format are lines, each line of it is a text.
  predict.path = placeholder(str)
  predict.gap = "_"  # Gap model: what marks a gap in text or path.
  predict.top_k = 5
  # How many sequences of a split are predicted, and of a file shown. All that
  # are predicted are in predictions.csv, with the truth as the data have it,
  # also where training has not seen it: the surprisal_nats of a label is then
  # inf; a symbol is read as <unknown>, which --mode=evaluate counts as right.
  # Without a known truth, truth and surprisal_nats are empty.
  predict.sequences = 3
  predict.symbols = 40  # How many symbols of each the table shows.

  config.sample = sample = ml_collections.ConfigDict()
  sample.temperature = (1.0,)  # One or several; 0 is the most likely symbol.
  sample.length = 500  # Symbols.
  sample.streams = 1  # Texts a temperature.
  # The text goes on from here. Music: from a piece of the test split, by its
  # number from 0, or from the first frames of it, as 3:16; else from silence.
  sample.prime = ""
  sample.top_k = placeholder(int)  # Only from the k most likely symbols.
  sample.top_p = placeholder(float)  # Only from the smallest set this likely.
  sample.seed = 0
  sample.tempo = 120  # Music: frames a minute.

  config.detect = detect = ml_collections.ConfigDict()
  # What is looked at: sessions in the form of data.unit and data.format; None:
  # the test split. A second path: sessions known to be anomalous, beside normal
  # ones of the first. What is known, labels too, counts for figures alone.
  detect.path = placeholder(str)
  detect.anomalous_path = placeholder(str)
  detect.labels = placeholder(str)  # A csv file of their names and labels.
  # Names of labels, separated by commas, of any case; equal numbers are equal:
  # 0, 0.0 and "0" are one. A label in neither list is taken as anomalous, and
  # said so on stderr; with an empty anomalous_labels it need not be said. An
  # empty label, nan, null, none and n/a are no label: what has none is left out
  # of the figures.
  detect.normal_labels = (
    "0,-,false,no,normal,benign,success,ok,negative,good,pass,passed,healthy,"
    "legitimate"
  )
  detect.anomalous_labels = (
    "1,true,yes,anomaly,anomalous,abnormal,attack,positive,malicious"
  )
  # Share of the sessions that are made anomalous first, for a trial: events
  # swapped, dropped, inserted, a run of another session, the end cut off.
  detect.inject = 0.0
  detect.seed = 0  # Of that, and of the bootstrap.
  # What gives an event its probability: forward, the events before it; of a
  # gap model also backward, those after it, and joint, both.
  detect.head = "forward"
  # Surprisal in nats of an event that training has never seen, at least.
  detect.unknown = 20.0
  # Sessions of at most data.window events. score: as the others; flag: always
  # flagged, as DeepLog's programs do, which pad them. The rule decides about
  # the others: short ones take nothing of its budget and are not counted.
  detect.short = "score"
  detect.top_mean = 5  # The mean of so many largest surprisals is a score.
  # Scores of a session that are combined to the one that decides: max, mean,
  # top_mean of the surprisals; misses of top_k; unknown events; or baselines.
  detect.scores = "max,mean,count_vector"
  # min: the least p-value decides; fisher: their product.
  detect.combine = "fisher"
  # The training sessions are dealt into so many parts, and each is scored by a
  # model trained on the others: so normal sessions score. 0: the validation
  # split alone says so, which takes no training, and resolves less.
  detect.folds = 5
  # What is flagged. rate: sessions, at this rate of false alarms; events: those
  # with an event flagged at its own rate; budget: so many of the oddest, equal
  # ones counted once; bh: so that of those flagged only `false_share` are
  # normal (Benjamini & Hochberg 1995); topk: those with an event that is not
  # among the top_k most likely (DeepLog).
  detect.rule = "rate"
  detect.rate = 0.005
  detect.event_rate = 0.001
  detect.budget = 100
  detect.false_share = 0.1
  detect.top_k = 9
  detect.baselines = True  # Score with them, too; `scores` may need some.
  # Events written: of sessions flagged, of all, or none; and how: csv, jsonl,
  # csv.gz or jsonl.gz; with so many likelier events beside each.
  detect.events = "flagged"
  detect.format = "csv"
  detect.alternatives = 3
  detect.worst = 20  # Sessions in the table.
  detect.bootstrap = 200  # Draws for the intervals of figures.
  # Of how many sessions --follow keeps what it has read: those whose events are
  # the newest. Another one has ended. Its end is scored then, as it is where a
  # line {"session": "x", "end": true} says so and where the input ends.
  detect.followed = 100_000

  config.report = report = ml_collections.ConfigDict()
  report.beside = ""  # Workdirs to compare with, separated by commas.

  config.search = search = ml_collections.ConfigDict()
  # tpe: near what was good so far, by Optuna's tree of Parzen estimators;
  # random; grid: all combinations of what `space` lists; coarse: the learning
  # rate alone, 1 and then a tenth of it until the loss stops improving, at last
  # three times and a third of the best (Greff et al. 2017).
  search.method = "tpe"
  search.coarse_size = 64  # coarse: layers have no more units than this.
  # No trial begins after one of these.
  search.trials = 40
  search.minutes = placeholder(float)  # Of this command.
  search.symbols = placeholder(int)  # Trained on, all trials together.
  # Trials that fall behind end at an evaluation. median: behind the median of
  # those before; hyperband: behind two thirds, more often early; none.
  search.pruning = "median"
  # Processes on this machine, each with its share of the cores. None: one for
  # each core where layers are small and the method is not coarse, else one.
  search.workers = placeholder(int)
  # A database, as an SQLAlchemy URL; postgresql+psycopg://USER@HOST/NAME needs
  # the extra `postgres`. None: a file in the workdir, which machines may share.
  search.storage = placeholder(str)
  # log_uniform(low, high), uniform(low, high), integer(low, high),
  # one_minus_log_uniform(low, high), whose low and high are of 1 - the field,
  # and choice(a, b, ...) or grid(a, b, ...): as in
  # search.space.optimizer.learning_rate = "log_uniform(1e-4, 1e-1)".
  search.space = space
  return config.lock()
