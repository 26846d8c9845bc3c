"""R2-AD2's stage of the way: gradients at several checkpoints become one number a row, high = anomalous."""

from anograd.alarm.balanced import BalancedPlan as BalancedPlan
from anograd.alarm.network import AlarmNetwork as AlarmNetwork
from anograd.alarm.network import PooledBatchNorm as PooledBatchNorm
from anograd.alarm.published import AlarmPlan as AlarmPlan
from anograd.alarm.scorer import BalancedScorer as BalancedScorer
from anograd.alarm.scorer import Gradients as Gradients
from anograd.alarm.scorer import PublishedScorer as PublishedScorer
from anograd.alarm.scorer import learners as learners
